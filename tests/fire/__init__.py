"""The real server over a real channel, under fire: kills, outages, storms, and long steady load.

``python -m tests.fire --kills 200 --soak-minutes 10`` runs what is asked for at full length and prints its
figures; tests/e2e runs the same scenarios shorter. Each scenario asserts what must hold.
"""
