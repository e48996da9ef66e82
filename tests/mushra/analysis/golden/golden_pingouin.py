"""Results of pingouin (pip install pingouin) for the full tables in this folder, as pingouin.csv.

Run in this folder: python golden_pingouin.py pingouin.csv
"""

import sys

import pandas as pd
import pingouin

rows = []
for design in ("balanced", "boundary"):
    ratings = pd.read_csv(f"{design}.csv")
    two_way = pingouin.rm_anova(
        data=ratings, dv="score", within=["condition", "item"], subject="listener", detailed=True
    )
    for effect in two_way.to_dict("records"):
        source = effect["Source"].replace(" * ", ":")
        rows += [(design, source, name, effect[name]) for name in ("F", "p_unc", "eps", "p_GG_corr", "ng2")]
    means = ratings.groupby(["listener", "condition"], as_index=False)["score"].mean()
    how = {"data": means, "dv": "score", "within": "condition", "subject": "listener"}
    friedman = pingouin.friedman(**how).iloc[0]
    rows += [(design, "friedman", name, friedman[name]) for name in ("W", "Q", "p_unc")]
    for pair in pingouin.pairwise_tests(**how, parametric=False, padjust="holm").to_dict("records"):
        rows += [(design, f"{pair['A']}-{pair['B']}", name, pair[name]) for name in ("p_unc", "p_corr")]
pd.DataFrame(rows, columns=["design", "what", "name", "value"]).to_csv(
    sys.argv[1], index=False, float_format="%.9g", lineterminator="\n"
)
