"""Laws of the expression language: Python's own arithmetic where both have a meaning, refusals everywhere else."""

from __future__ import annotations

import contextlib
import math
import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgcompile.errors import MgcompileError
from mgcompile.spec.expressions import ExpressionError, Value, evaluate, has_expression, names_in

NAMES: dict[str, Value] = {"n": 3, "w": 64, "half": 0.5, "deep": True, "norm": "batch", "c": [64, 32, 16]}


def refusal(expression: str, names: dict[str, Any] = NAMES) -> str:
    with pytest.raises(ExpressionError) as caught:
        evaluate(f"${{{expression}}}", names)
    return caught.value.reason


def arithmetic() -> st.SearchStrategy[str]:
    leaves = st.one_of(st.integers(0, 99).map(str), st.sampled_from(["n", "w", "half", "0.25"]))
    binary = ["+", "-", "*", "/", "//", "%"]

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, st.sampled_from(binary), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
            inner.map(lambda text: f"-{text}"),
            st.tuples(st.sampled_from(["abs", "floor", "ceil", "round", "int", "float"]), inner).map(
                lambda t: f"{t[0]}({t[1]})"
            ),
            st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
            st.tuples(inner, inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} < {t[2]} else {t[3]})"),
        )

    return st.recursive(leaves, grow, max_leaves=6)


@given(arithmetic(), st.integers(-50, 50), st.integers(1, 512))
def test_numbers_are_those_of_python(expression: str, n: int, w: int) -> None:
    names: dict[str, Value] = {"n": n, "w": w, "half": 0.5}
    try:
        expected = eval(expression, {"floor": math.floor, "ceil": math.ceil}, dict(names))
    except ZeroDivisionError:
        assert refusal(expression, names) == "division by zero"
        return
    found = evaluate(f"${{{expression}}}", names)
    # A quotient that is whole here is a float there: the same number up to what a float can hold.
    assert found == pytest.approx(expected, rel=1e-9)


@given(st.integers(-(10**6), 10**6), st.integers(-1000, 1000).filter(bool))
def test_a_quotient_is_whole_exactly_when_it_can_be(a: int, b: int) -> None:
    quotient = evaluate("${a / b}", {"a": a, "b": b})
    assert isinstance(quotient, int) == (a % b == 0)
    assert quotient == a / b


NUMBERS = st.lists(st.integers(-100, 100), max_size=5)


@given(NUMBERS, st.integers(1, 9), st.sampled_from(["+", "-", "*", "/", "//", "%"]))
def test_lists_work_element_by_element(items: list[int], number: int, op: str) -> None:
    names: dict[str, Value] = {"x": items, "k": number}
    each = [evaluate(f"${{a {op} k}}", {"a": item, "k": number}) for item in items]
    assert evaluate(f"${{x {op} k}}", names) == each
    assert evaluate(f"${{x {op} y}}", {**names, "y": [number] * len(items)}) == each


@given(NUMBERS, NUMBERS)
def test_lists_of_two_lengths_are_refused(left: list[int], right: list[int]) -> None:
    names = {"x": left, "y": right}
    if len(left) == len(right):
        assert evaluate("${x + y}", names) == [a + b for a, b in zip(left, right, strict=True)]
    else:
        assert "different lengths" in refusal("x + y", names)
    assert evaluate("${concat(x, y)}", names) == left + right


BOUND = st.one_of(st.just(""), st.integers(-6, 6).map(str))


@given(NUMBERS, BOUND, BOUND, st.sampled_from(["", ":", ":1", ":2", ":-1"]))
def test_slices_are_those_of_python(items: list[int], start: str, stop: str, step: str) -> None:
    assert evaluate(f"${{x[{start}:{stop}{step}]}}", {"x": items}) == eval(f"x[{start}:{stop}{step}]", {"x": items})


@given(NUMBERS, st.integers(-6, 6))
def test_an_index_is_that_of_python_or_refused(items: list[int], index: int) -> None:
    try:
        expected = items[index]
    except IndexError:
        assert f"of length {len(items)}" in refusal("x[i]", {"x": items, "i": index})
    else:
        assert evaluate("${x[i]}", {"x": items, "i": index}) == expected


@given(st.text(alphabet="abn0123+-*/()[]{}$'\". ,:<=%\\\n\t#éﬁ_", max_size=60))
def test_any_text_has_a_value_or_a_reason(text: str) -> None:
    for candidate in (text, f"${{{text}}}"):
        with contextlib.suppress(ExpressionError):
            names_in(candidate)
            evaluate(candidate, NAMES)


@given(st.text().filter(lambda text: "${" not in text))
def test_text_without_an_expression_stays(text: str) -> None:
    assert evaluate(text, {}) == text
    assert not has_expression(text)
    assert names_in(text) == frozenset()


@given(st.text(alphabet="ab$ }{'", max_size=20))
def test_escaping_gives_the_text_back(text: str) -> None:
    assert evaluate(text.replace("${", "$${"), {}) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${w / 2}", 32),
        ("${w / 3}", 64 / 3),
        ("${[64, 32] // 2}", [32, 16]),
        ("${[[8], [8, 4]] * 2}", [[16], [16, 8]]),
        ("${max(c, 20)}", [64, 32, 20]),
        ("${max(c)}", 64),
        ("${min([5])}", 5),
        ("${round(c / 3)}", [21, 11, 5]),
        ("${2 ** n}", 8),
        ("${2 ** -1}", 0.5),
        ("${-c}", [-64, -32, -16]),
        ("${sqrt(16)}", 4),
        ("${sqrt(2)}", math.sqrt(2)),
        ("${log2(w)}", 6),
        ("${log2(6)}", math.log2(6)),
        ("${len(c) + sum(c)}", 115),
        ("${repeat(w, n)}", [64, 64, 64]),
        ("${repeat(c[1:], 2)}", [[32, 16], [32, 16]]),
        ("${repeat(w, 0)}", []),
        ("${0 < n <= 3 < w}", True),
        ("${0 < n < 3}", False),
        ("${norm in ['batch', 'group']}", True),
        ("${norm not in ['none']}", True),
        ("${c == [64, 32, 16]}", True),
        ("${deep == 1}", False),
        ("${deep and not false}", True),
        ("${n == 0 or w / n > 1}", True),
        ("${n == 0 and 1 / 0 > 1}", False),
        ("${w if deep else 1 / 0}", 64),
        ("${'a}b'}", "a}b"),
        ("VGG-${5 * n + 1}", "VGG-16"),
        ("${n}${w}-${norm}-${deep}-${half}", "364-batch-true-0.5"),
        ("$${n} is ${n}", "${n} is 3"),
    ],
)
def test_values(text: str, value: Value) -> None:
    found = evaluate(text, NAMES)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("m", "there is no name `m`"),
        ("norn", "did you mean `norm`?"),
        ("mim(1, 2)", "did you mean `min`?"),
        ("__import__('os')", "there is no function"),
        ("w.bit_length()", "only these can be called"),
        ("w.real", "not part of the language"),
        ("[x for x in c]", "not part of the language"),
        ("lambda: 1", "not part of the language"),
        ("f'n'", "not part of the language"),
        ("1j", "not part of the language"),
        ("b'x'", "not part of the language"),
        ("None", "not part of the language"),
        ("...", "not part of the language"),
        ("n is 3", "not part of the language"),
        ("n << 2", "not part of the language"),
        ("~n", "not part of the language"),
        ("(n := 2)", "not part of the language"),
        ("(n, w)", "not part of the language"),
        ("[*c]", "not part of the language"),
        ("max(c, key=n)", "without `=`"),
        ("", "is empty"),
        ("n +", "cannot be read"),
        ("n\0", "cannot be read"),
        ("{n}", "braces stand inside"),
        ("10 ** 15 * 10", "beyond 10^15"),
        ("2 ** 64", "beyond 10^15"),
        ("2 ** 65", "exponent 65"),
        ("(10 ** 15) ** 64", "beyond 10^15"),
        ("(0 - 8) ** half", "not a real number"),
        ("1e308 * 10", "not a finite number"),
        ("1e308 ** 2", "too large"),
        ("1e999", "not a finite number"),
        ("1 / 0", "division by zero"),
        ("n % 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("sqrt(-1)", "`sqrt` of -1"),
        ("log2(0)", "`log2` of 0"),
        ("norm + 'x'", "expected a number, found 'batch'"),
        ("deep + 1", "expected a number, found true"),
        ("n if n else w", "expected true or false, found 3"),
        ("not c", "expected true or false"),
        ("norm < 'x'", "only numbers have an order"),
        ("n in w", "needs a list"),
        ("n[0]", "needs a list"),
        ("c[half]", "needs a whole number"),
        ("c[deep]", "needs a whole number"),
        ("c[::0]", "step of a slice is 0"),
        ("max(n)", "needs a list"),
        ("min([])", "empty list"),
        ("len(c, c)", "takes 1 arguments, found 2"),
        ("len()", "takes 1 arguments, found 0"),
        ("sum(n)", "needs a list"),
        ("concat(c, n)", "needs a list"),
        ("repeat(n, -1)", "-1 times"),
        ("repeat(n, half)", "needs a whole number"),
    ],
)
def test_refusals(expression: str, reason: str) -> None:
    assert reason in refusal(expression)


@pytest.mark.parametrize("text", ["${n", "a ${n} ${", "${ {} }", "${'}"])
def test_an_open_expression_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"has no `\}`"):
        evaluate(text, NAMES)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("+".join(["n"] * 400), "50 deep"),
        ("-" * 900 + "1", "50 deep"),
        ("(" * 450 + "1" + ")" * 450, "cannot be read"),
        ("lambda: " + "-" * 900 + "1", "not part of the language"),
        ("[" * 60 + "]" * 60, "50 deep"),
        ("'" + "x" * 1000 + "'", "more than 1000"),
        ("repeat(1, 10001)", "more than 10000"),
        ("concat(repeat(1, 9000), repeat(1, 9000))", "more than 10000"),
        ("repeat(repeat(repeat(1, 1000), 1000), 1000)", "steps"),
        ("repeat(repeat([], 9000), 9000)", "steps"),
        ("+".join(["repeat(1, 10000)"] * 30), "steps"),
        ("big + 1", "`big`"),
        ("deep_list", "`deep_list`"),
    ],
)
def test_explosions_are_refused_at_once(expression: str, reason: str) -> None:
    nested: Any = []
    nested.append(nested)
    start = time.process_time()
    assert reason in refusal(expression, {"n": 1, "big": 10**16, "deep_list": nested})
    assert time.process_time() - start < 1


@pytest.mark.parametrize("value", [None, {"a": 1}, math.nan, math.inf, 10**16, b"x", [1, None]])
def test_a_name_with_no_value_of_the_language_is_refused_where_it_is_used(value: Any) -> None:
    assert "`odd`" in refusal("odd", {"odd": value})
    assert evaluate("${n}", {"odd": value, "n": 1}) == 1


def test_interpolation_takes_no_lists_and_does_not_explode() -> None:
    with pytest.raises(ExpressionError, match="is a list"):
        evaluate("x-${c}", NAMES)
    with pytest.raises(ExpressionError, match="1200 characters"):
        evaluate("${s}${s}", {"s": "x" * 600})


def test_names_in_leaves_out_functions_and_constants() -> None:
    assert names_in("${max(n, w)}-${c[i:]} $${no} ${true}") == {"n", "w", "c", "i"}


def test_values_are_copies() -> None:
    names: dict[str, Value] = {"c": [1, [2]]}
    value = evaluate("${c}", names)
    assert isinstance(value, list)
    value[1].append(3)
    assert names == {"c": [1, [2]]}


def test_the_message_names_the_expression_and_survives_pickling() -> None:
    with pytest.raises(MgcompileError) as caught:
        evaluate("a ${n + m} b", NAMES)
    message = "`${n + m}`: there is no name `m`; known: c, deep, half, n, norm, w"
    assert str(caught.value) == message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message
