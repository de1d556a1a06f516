"""The Python face, `import niblick as nb`. Thin: each name calls what its verb on the command line calls."""
