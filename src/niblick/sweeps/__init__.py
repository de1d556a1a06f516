"""Many runs from one file: their points, where they run, what is stopped early, what came out."""
