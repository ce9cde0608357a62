"""The page of all figures, from the registry."""

from uqseg.metrics.registry import Figure, figures, tables

NOTATION = (
    "Samples p_s with weights w_s (sum 1), hypotheses h_s = [p_s ≥ 0.5], readers y_r with weights v_r (equal over the "
    "readers who read the image), p̄ = Σ w_s p_s, ȳ = Σ v_r y_r. Set distance d(A,B) = 1 − |A∩B|/|A∪B|, d(∅,∅) = 0. "
    "Undefined values are left out of a mean and counted."
)
DRAWS = (
    "Samples are independent draws, a whole finite support, or stratified (chosen to represent a distribution). "
    "Figures marked S depend on the number and the kind of the samples and are compared only where both are equal."
)
MAJORITY = (
    "The majority is [ȳ ≥ 0.5]: two of four readers make a lesion. With > 0.5 they would not, which changes the "
    "majority mask of 72 % of the real LIDC slices, and the mean Dice of a map at 0.5 from 0.66 to 0.84."
)


def markdown() -> str:
    """Formula, direction, range, degenerate rule, source, and whose published numbers each figure can stand beside.

    A row a figure, or a row a family of figures; a figure that stands in several tables of a report is in its first.
    """
    lines = ["# Metrics", "", NOTATION, "", DRAWS, "", MAJORITY, ""]
    for name, title in tables().items():
        rows: dict[str, Figure] = {}
        for figure in figures(name):
            if figure.table == name:
                rows.setdefault(figure.family or figure.name, figure)
        if not rows:
            continue
        lines += [f"## {title}", "", "| name | formula | better | range | degenerate inputs | source | as | unlike |"]
        lines += ["|---|---|---|---|---|---|---|---|", *(_row(n, f) for n, f in rows.items()), ""]
    return "\n".join(lines)


def _row(name: str, figure: Figure) -> str:
    low, high = (f"{v:.4g}".replace("inf", "∞") for v in figure.range)
    better = {"lower": "lower", "higher": "higher", "none": "neither"}[figure.direction]
    formula = FAMILIES.get(figure.table, "{0}").format(figure.formula.split(", ")[0], name) if figure.family else None
    cells = [
        f"`{name}`" + (" (S)" if figure.depends_on_samples else ""),
        formula or figure.formula,
        better,
        f"{low} to {high}",
        figure.degenerate or "always defined",
        figure.reference,
        figure.same_as,
        figure.unlike,
    ]
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


FAMILIES = {
    "threshold": "{0} of [p̄ ≥ t], t = 0.1, 0.3, 0.5, 0.7, 0.9: `{1}@t` pooled, `{1}_image@t` per image, `_first`, "
    "`_majority` for the other references, `_mean` over the five t",
    "draws": "GED expected from k draws: the debiased sample term times 1 − 1/k",
}
"""What a row says of a family, by its table."""
