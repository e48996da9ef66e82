"""Analysis of listening tests after ITU-R BS.1534-3, as a library.

Everything works on a tidy table of ratings (listener, item, condition, score)::

    import mushra
    from mushra.analysis.description import describe_conditions
    from mushra.analysis.pipeline import analyze
    from mushra.analysis.ratings import with_roles
    from mushra.analysis.significance import paired_pages, wilcoxon_test

    ratings = mushra.load("mushra.csv")             # any format, or with_roles(frame) for your own table
    describe_conditions(ratings)                    # one row per condition, intervals over listeners
    wilcoxon_test(paired_pages(ratings.frame, "opus@16", "opus@24"))
    analysis = analyze(ratings, seed=0)             # everything: screening, intervals, tests
    analysis.screening.excluded

Modules: `ratings` (the table and the roles of conditions), `load`, `sources`, `formats` and `tidy` (reading
and cleaning), `screening`, `description` (intervals), `significance` (tests, letters), `anova`,
`mixed` and `freedom` (the mixed model and its tests), `primary` (the main analysis of a report),
`pipeline` (all in one), `report` and `wording` (files), `plots`.
"""
