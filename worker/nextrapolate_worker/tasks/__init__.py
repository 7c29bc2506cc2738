"""What a job can be asked to do with a trajectory, one file each: run the stages, write the report."""
