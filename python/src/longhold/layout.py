"""The recalled prompt: which tokens stand before a question, and in which order."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .errors import InvalidArgument
from .home import Home, Place, Plan


@dataclass(frozen=True)
class Laid:
    """A part of a document in the recalled prompt."""

    document: int
    begin: int  # tokens
    end: int
    span: int  # of the plan; -1: the sinks


def spans_through(plan: Plan, gate: float) -> Plan:
    """The plan for an engine that cannot add gate * ln(score) to the logits of a span's keys: each factor
    score^gate is rounded to 0 or 1, so that lookalikes do not outvote the span that has the answer. The best span
    always stays."""
    spans = tuple(span for i, span in enumerate(plan.spans) if i == 0 or max(0.0, span.score) ** gate >= 0.5)
    return dataclasses.replace(plan, spans=spans)


def lay_out(home: Home, memory: str, plan: Plan) -> list[Laid]:
    """[sinks] [spans, worst to best], each after its date line. Must hold: the plan has spans."""
    best = plan.spans[0]
    sinks = home.stat(memory).sink_tokens
    try:
        home.tokens(memory, best.document, 0, sinks)
    except InvalidArgument:  # a short document; it may end before its sinks would
        sinks = max(span.end for span in plan.spans if span.document == best.document)
    parts = [Laid(best.document, 0, sinks, -1)]
    for i in sorted(range(len(plan.spans)), key=lambda i: plan.spans[i].score):
        span = plan.spans[i]
        for begin, end in ((span.date_begin, span.date_end), (span.begin, span.end)):
            if span.document == best.document:
                begin = max(begin, sinks)
            if begin < end:
                parts.append(Laid(span.document, begin, end, i))
    return parts


def places_of(parts: list[Laid], position: int) -> list[Place]:
    """The parts as places, one behind the other from `position` on."""
    places = []
    for part in parts:
        places.append(Place(part.document, part.begin, part.end, position))
        position += part.end - part.begin
    return places
