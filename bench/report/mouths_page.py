"""mouths.html: real and synthesised mouths side by side, and the measures of each method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from lipstream.bench.measure.reconstruction import MEASURES, Method
from lipstream.bench.report.charts import table
from lipstream.bench.report.template import document, fragment, template
from lipstream.calibration.report.pictures import data_uri

_BODY: Final = template("""\
{{ table }}
{% for clip, rows in clips.items() %}
<section>
<h2>{{ clip }}</h2>
{% for method, picture in rows.items() %}
<p class="eyebrow">{{ method }}</p>
<img alt="{{ method }}" class="close-ups" src="{{ picture }}">
{% endfor %}
</section>
{% endfor %}""")


def mouths_page(
    clips: Mapping[str, Mapping[str, Method]],
    summary: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]],
) -> str:
    """Self-contained HTML: a table, then for each clip a row of close-ups by method.

    clips: by clip, what `reconstruct_tracked` returns; summary: {mode: what `summary_of` returns}.
    """
    rows = [
        (mode, method, *(_spread(measures.get(name)) for name in MEASURES))
        for mode, methods in summary.items()
        for method, measures in methods.items()
    ]
    pictures = {
        clip: {
            name: data_uri(np.concatenate(methods[name].close_ups, axis=1))
            for name in ("real", *(name for name in methods if name != "real"))
        }
        for clip, methods in clips.items()
    }
    measures = table(("mode", "method", *MEASURES), rows)
    return document("Mouths, real and synthesised", fragment(_BODY, table=measures, clips=pictures))


def _spread(measure: Mapping[str, float] | None) -> str | None:
    return None if measure is None else f"{measure['mean']:.3f} ± {measure['spread']:.3f}"
