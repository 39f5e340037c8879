#!/usr/bin/env bash
# Segments a cohort with a SLURM array: every task takes one part of the cases.
#
#     sbatch examples/slurm/predict_array.sh COHORT OUT
#
# COHORT is a folder of case folders, OUT a folder that all machines have. A task that was stopped,
# by its time limit for example, is submitted again by its number, as in `sbatch --array=3 ...`: it
# leaves out the cases that are done. OUT/summary.csv has a line for each case.
#
#SBATCH --job-name=fastbts
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

# The last number of --array above. SLURM_ARRAY_TASK_COUNT is no substitute: it is 1 when one task
# alone is submitted again.
N_PARTS=${N_PARTS:-8}
cohort=${1:?expected the folder of the cases} out=${2:?expected the folder for the results}

srun fastbts predict "$cohort" -o "$out" --part "$SLURM_ARRAY_TASK_ID/$N_PARTS" --skip-done \
    --threads "$SLURM_CPUS_PER_TASK" ${FASTBTS_OPTIONS:-}
