"""The web app of `niblick monitor`: one file for each page, over `monitor.watcher`."""
