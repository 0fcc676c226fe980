import math
import re

import pytest

from nextword.corpus.builtin.stories import Choice, default_grammar, load_grammar

STORIES = 600


@pytest.fixture(scope="module")
def stories():
    return [default_grammar().draw(7, index) for index in range(STORIES)]


def test_drawing_is_a_pure_function_of_seed_and_index(stories):
    assert default_grammar().draw(7, 3) == stories[3]
    assert default_grammar().draw(8, 3) != stories[3]


def test_each_text_has_exactly_one_derivation_with_the_probability_it_was_drawn_with(stories):
    for story in stories:
        found = list(default_grammar().derivations(story.text))
        assert len(found) == 1
        assert found[0].log_probability == pytest.approx(story.log_probability, abs=1e-9)


def test_probabilities_of_all_texts_of_a_reduced_grammar_sum_to_one():
    grammar = load_grammar(max_words=1, max_options=2)
    everything = list(grammar.everything())
    assert len({story.text for story in everything}) == len(everything) > 1000
    assert math.fsum(math.exp(story.log_probability) for story in everything) == pytest.approx(
        1.0, abs=1e-12
    )


def test_probabilities_of_all_single_sentences_sum_to_one_with_whole_word_lists():
    grammar = load_grammar(max_words=3)
    # An event needs the hero's name, so the sum is over the opening, which binds it.
    everything = list(grammar.everything("opening"))
    assert len({story.text for story in everything}) == len(everything) > 100
    assert math.fsum(math.exp(story.log_probability) for story in everything) == pytest.approx(
        1.0, abs=1e-12
    )


def test_the_parser_agrees_with_the_list_of_all_texts():
    grammar = load_grammar(max_words=1, max_options=2)
    for story in list(grammar.everything())[::97]:
        assert grammar.parse(story.text).log_probability == pytest.approx(
            story.log_probability, abs=1e-9
        )


def test_what_the_grammar_cannot_write_has_no_derivation(stories):
    text = stories[0].text
    assert default_grammar().parse(text[:-1]) is None
    assert default_grammar().parse(text + " ") is None
    assert default_grammar().parse("") is None


def test_a_swapped_name_is_no_story():
    for index in range(50):
        text = default_grammar().draw(1, index).text
        name = re.search(r"thanked (\w+) for", text)
        if name:
            other = "Ash" if name[1] != "Ash" else "Kim"
            assert (
                default_grammar().parse(text.replace(f"thanked {name[1]}", f"thanked {other}"))
                is None
            )
            return
    pytest.fail("no story with that sentence among 50")


def test_stories_have_60_to_200_words(stories):
    lengths = [len(story.text.split()) for story in stories]
    assert min(lengths) >= 60
    assert max(lengths) <= 200


def test_the_shortest_and_longest_possible_story_are_inside_these_limits():
    shortest, longest = _lengths(default_grammar(), "story")
    assert shortest >= 60
    assert longest <= 200


def test_there_are_at_least_1500_different_words():
    words = {
        word
        for name, choice in default_grammar().rules.items()
        for option in choice.options
        for part in option.parts
        for word in re.findall(r"[\w'-]+", getattr(part, "text", ""))
        if name
    }
    assert len(words) >= 1500


def test_the_worked_example_has_its_odds():
    odds = {
        option.parts[0].text: math.exp(option.log_probability)
        for option in default_grammar().rules["born"].options
    }
    assert odds.pop("make mistakes") == pytest.approx(0.6)
    assert odds.pop("create") == pytest.approx(0.2)
    assert odds.pop("learn") == pytest.approx(0.1)
    assert sum(odds.values()) == pytest.approx(0.1)


def test_sayings_stand_in_under_a_tenth_of_the_stories_with_their_odds():
    texts = [default_grammar().draw(0, index).text for index in range(5000)]
    born = [text for text in texts if text.startswith("We are all humans born to")]
    sayings = math.exp(default_grammar().rules["start"].options[0].log_probability)
    assert sayings < 0.1
    assert sum(
        text.startswith("We are all humans born to make mistakes.") for text in born
    ) == pytest.approx(0.6 * len(born), abs=5)


def test_a_number_picks_the_option_it_falls_under_and_says_where():
    choice = Choice.of([(0.5, "a"), (0.25, "b"), (0.25, "c")])
    option, inside = choice.pick(0.625)
    assert option.parts[0].text == "b"
    assert inside == pytest.approx(0.5)


def _lengths(grammar, rule, seen=None):
    """Return the fewest and the most words a rule can write.

    What is recalled counts as one or two words.
    """
    shortest, longest = math.inf, 0
    for option in grammar.rules[rule].options:
        low = high = 0
        text = ""
        for part in option.parts:
            kind = type(part).__name__
            if kind == "Write":
                text += part.text
            elif kind == "Draw":
                least, most = _lengths(grammar, part.rule)
                low, high = low + least, high + most
                text += "\0"
            elif kind == "Recall":
                low, high = low + 1, high + (2 if part.name == "thing" else 1)
                text += "\0"
        own = len([word for word in text.split() if word.strip('\0.,"?!')])
        low, high = low + own, high + own
        shortest, longest = min(shortest, low), max(longest, high)
    return shortest, longest
