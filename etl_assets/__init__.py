"""What is loaded: one package a source, all of one shape."""

import warnings

import dagster as dg

# Dagster says of every single asset that `backfill_policy=` is a beta parameter.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
