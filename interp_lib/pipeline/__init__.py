"""From runs to a report: what is old is found and redone by Snakemake, notebooks by papermill."""
