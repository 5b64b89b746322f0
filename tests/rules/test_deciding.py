"""Which conditions decided: were all others to answer anything else, the rule would still say the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.rules import parse
from hub.rules.rule import Shape
from tests.rules.conftest import CATALOG

CONDITIONS = 6
ANSWERS = st.lists(st.sampled_from([True, False, None]), min_size=CONDITIONS, max_size=CONDITIONS)
SHAPES = st.recursive(
    st.builds(lambda number: Shape("is", number=number), st.integers(0, CONDITIONS - 1)),
    lambda inner: st.one_of(
        st.builds(
            lambda word, parts: Shape(word, tuple(parts)),
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda part: Shape("not", (part,)), inner),
    ),
    max_leaves=10,
)


@settings(max_examples=500, deadline=None, database=None)
@given(shape=SHAPES, answers=ANSWERS, others=ANSWERS)
def test_the_others_do_not_matter(
    shape: Shape, answers: list[bool | None], others: list[bool | None]
) -> None:
    deciding = shape.deciding(answers)
    assert deciding
    changed = [answer if number in deciding else others[number] for number, answer in enumerate(answers)]
    assert (shape.holds(changed) is True) == (shape.holds(answers) is True)


def test_of_several_reasons_all_are_told_and_what_did_not_matter_is_not() -> None:
    shape = parse("city = 'a' AND (city = 'b' OR NOT vip) AND score > 1", CATALOG).shape
    assert shape.deciding([True, False, False, True]) == {0, 2, 3}
    assert shape.deciding([True, False, True, True]) == {1, 2}
    assert shape.deciding([False, True, True, False]) == {0, 3}
