"""Many runs, and what is made of them: figures and reports."""
