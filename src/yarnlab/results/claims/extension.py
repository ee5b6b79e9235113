"""What is asked of an extended model and is no plain quantity: `judge:` functions of `config/extension.yaml`."""

from __future__ import annotations

from collections.abc import Iterator

from yarnlab.results.claims.models import Scope
from yarnlab.results.claims.parts import Part, interval
from yarnlab.results.claims.quantities import context_gap
from yarnlab.results.claims.special import special


@special
def on_last_doubling(scope: Scope, *, of: str, over: str, against: str, below: float) -> Iterator[Part]:
    """NLL of one model with the whole text minus that of another cut to `against`, on the last tokens within sL.

    Those are the tokens in (c/2, c], c being the longest doubling of L up to sL, as contexts are measured.
    """
    tokens, cut = scope.results.last_doubling(), scope.window.tokens(against)
    arms = [scope.model(name).arm for name in (of, over)]
    found = context_gap(scope.results, *arms, tokens=tokens, at=tokens[1], against=cut)
    whole, short = (f"{scope.label(name)} with {text}" for name, text in ((of, "all"), (over, f"{cut:,}")))
    name = f"{whole} minus {short} tokens of context, on tokens {tokens[0]:,}–{tokens[1]:,}"
    yield interval(name, found, "<", below, scope.sources("context", *dict.fromkeys((of, over))))
