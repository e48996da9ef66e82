# Results of lmerTest and pbkrtest for the tables of ratings in this folder, as lmertest.csv.
# Debian: apt-get install --no-install-recommends r-base-core r-cran-lme4 r-cran-lmertest r-cran-pbkrtest
# Run in this folder: Rscript golden_lmertest.R lmertest.csv
suppressMessages({library(lmerTest); library(pbkrtest)})

terms <- c("listener", "item", "listener:item", "listener:condition", "item:condition")
results <- data.frame()
note <- function(design, what, name, value)
  results <<- rbind(results, data.frame(design = design, what = what, name = name, value = signif(value, 8)))

fitted <- function(ratings, terms) {
  formula <- as.formula(paste("score ~ 0 + condition +", paste0("(1 | ", terms, ")", collapse = " + ")))
  lmerTest::lmer(formula, ratings, REML = TRUE,
                 control = lmerControl(optimizer = "bobyqa", calc.derivs = FALSE,
                                       optCtrl = list(rhobeg = 0.2, rhoend = 1e-9, maxfun = 1e5)))
}

for (design in c("balanced", "unbalanced", "boundary", "boundary_unbalanced")) {
  ratings <- read.csv(paste0(design, ".csv"), stringsAsFactors = TRUE)
  conditions <- levels(ratings$condition)
  model <- fitted(ratings, terms)
  variances <- as.data.frame(VarCorr(model))
  for (name in terms) note(design, "variance", name, variances$vcov[variances$grp == name])
  note(design, "variance", "residual", sigma(model)^2)

  # The condition means are equal: rows of differences to the first one.
  rows <- cbind(-1, diag(length(conditions) - 1))
  test <- contestMD(model, rows)
  note(design, "satterthwaite", "F", test[["F value"]])
  note(design, "satterthwaite", "df2", test[["DenDF"]])
  note(design, "satterthwaite", "p", test[["Pr(>F)"]])

  # A component at zero has no uncertainty: Kenward and Roger's method takes the model without it.
  kept <- terms[sapply(terms, function(name) variances$vcov[variances$grp == name] > 1e-6 * sigma(model)^2)]
  kr <- KRmodcomp(fitted(ratings, kept), rows)$test["Ftest", ]
  note(design, "kenward_roger", "F", kr$stat)
  note(design, "kenward_roger", "df2", kr$ddf)
  note(design, "kenward_roger", "p", kr$p.value)

  weights <- diag(length(conditions))
  for (a in seq_along(conditions)) {
    mean <- contest1D(model, weights[a, ])
    note(design, "mean", conditions[a], mean[["Estimate"]])
    note(design, "mean error", conditions[a], mean[["Std. Error"]])
    note(design, "mean df", conditions[a], mean[["df"]])
    for (b in seq_along(conditions)) if (a < b) {
      pair <- contest1D(model, weights[a, ] - weights[b, ])
      name <- paste(conditions[a], conditions[b], sep = "-")
      note(design, "pair", name, pair[["Estimate"]])
      note(design, "pair error", name, pair[["Std. Error"]])
      note(design, "pair df", name, pair[["df"]])
      note(design, "pair p", name, pair[["Pr(>|t|)"]])
    }
  }
}
write.csv(results, commandArgs(trailingOnly = TRUE)[1], row.names = FALSE, quote = FALSE)
