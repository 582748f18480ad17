"""`python helm/generate`: see `everything`."""

from everything import main

main()
