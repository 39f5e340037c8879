"""Scores of networks: calibration, figures, comparisons; of single cases: `fastbts.scores`."""
