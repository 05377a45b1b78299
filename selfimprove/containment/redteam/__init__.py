"""The red team: every known way out of the containment, tried on this machine.

=================== =================================================================================================
``attack``          what an attack is: a small function, and a record around it
``inside``          attacks from inside a worker, a module for each category
``forged``          attacks on the trusted side: checkpoints, ledgers, permits, messages, machines that lack something
``registry``        all of them by id
``arena, target``   what they aim at, and what of it was touched, seen from outside
``inmate, bench``   where they run: a contained worker, and an uncontained process for controls and trusted code
``runner, verdict`` both runs of each attack, and what they say together
``probe, prober``   a researcher's own attacks, from a file
=================== =================================================================================================

No attack harms anything but its own files and processes, whether it succeeds or not; connections stay on this machine.
"""
