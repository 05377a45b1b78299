"""Where trainings run: on this machine, on nodes of a Slurm cluster, or of a Ray cluster; one protocol, one lineage.

The head, which holds the ledger, the budget and the signing key, stays where the run was started. A node runs the
ordinary supervisor, which contains the workers there as it does here.
"""
