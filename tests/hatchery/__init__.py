"""Workers as they are, but for the birth of their children: forked where torch is there already.

A child that a worker starts imports torch for seconds, longer than most jobs of tests take.

    births.py   forks the children
    worker.py   the worker, with its children from there
    server.py   `nextrapolate-server`, with such workers
"""
