"""LangChain's OpenAI models against the endpoint."""

import pytest

langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")


@pytest.mark.filterwarnings("ignore")
def test_it_writes_streams_and_embeds(server, small):
    known = {"base_url": f"{server.address}/v1", "api_key": "none", "max_retries": 0}
    model = langchain.OpenAI(model="small", temperature=0, max_tokens=12, **known)
    wrote = model.invoke("We are all")
    assert wrote == small.generate("We are all", temperature=0, max_tokens=12)
    assert "".join(model.stream("We are all")) == wrote
    assert model.batch(["We are all", "The owl"])[0] == wrote
    embeddings = langchain.OpenAIEmbeddings(
        model="small", check_embedding_ctx_length=False, **known
    )
    one, two = embeddings.embed_documents(["We are", "The owl"])
    assert len(one) == len(two) == small.model.shape.hidden_size
