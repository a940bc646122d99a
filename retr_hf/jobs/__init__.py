"""Many runs at once: grids and searches, planned as commands of the scripts and worked off as processes."""
