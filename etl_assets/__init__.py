"""What is loaded: one package a source, all of one shape."""

import warnings

import dagster as dg

# Dagster repeats for every asset that `backfill_policy=` is a beta parameter; docs/dependencies.md records the choice.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
