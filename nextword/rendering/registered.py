"""Register renderers of plain data for `print` and notebooks."""

from nextword.base.display import register
from nextword.explanation.attention import AttentionMaps
from nextword.explanation.audit import Audit
from nextword.explanation.compare import Comparison
from nextword.explanation.replay import Replay
from nextword.explanation.ruler import Ruler
from nextword.explanation.trace import Trace
from nextword.rendering.attention import attention_html, describe_heads
from nextword.rendering.audit import audit_html, describe_audit
from nextword.rendering.compare import comparison_html, describe_comparison_of_models
from nextword.rendering.replay import describe_replay, replay_html
from nextword.rendering.ruler import describe_ruler, ruler_html
from nextword.rendering.trace import describe_trace, trace_html


def register_all() -> None:
    """Register every renderer."""
    register(AttentionMaps, describe_heads, attention_html)
    register(Audit, describe_audit, audit_html)
    register(Comparison, describe_comparison_of_models, comparison_html)
    register(Replay, describe_replay, replay_html)
    register(Ruler, describe_ruler, ruler_html)
    register(Trace, describe_trace, trace_html)
