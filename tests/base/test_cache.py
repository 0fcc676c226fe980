from nextword.base.cache import cached


def test_it_is_computed_once_for_the_same_and_again_for_another(place):
    asked = []

    def compute():
        asked.append(1)
        return {"value": len(asked)}

    assert cached([b"a", b"b"], compute) == {"value": 1}
    assert cached([b"a", b"b"], compute) == {"value": 1}
    assert cached([b"ab"], compute) == {"value": 2}  # where parts end counts
    assert cached([b"b", b"a"], compute) == {"value": 3}


def test_what_is_damaged_is_computed_again(place):
    assert cached([b"a"], lambda: 1) == 1
    (file,) = place.folder.glob("cache/measured/*.json")
    for damage in ("", "[]", "{}", "\0"):
        file.write_text(damage)
        assert cached([b"a"], lambda: 2) == 2
    assert cached([b"a"], lambda: 3) == 2


def test_where_nothing_can_be_written_it_is_computed_each_time(place, monkeypatch):
    (place.folder / "cache").write_text("not a folder")
    assert [cached([b"a"], lambda one=one: one) for one in (1, 2)] == [1, 2]
