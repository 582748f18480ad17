"""The other end of the wire and of the store, without sockets, Redis or a clock.

Whoever leads a run holds these objects and moves bytes between them; the service does it with Tornado and Redis, the
simulation in virtual time, and both run the same rules::

    bytes of a worker --> Peer --events--> Turns --> the core
                            ^                |
                            |                +--> Commit | Rewrite | AwaitLock   (for the store; its answers: Fence)
                            +--- frames -----+--> Speak                          (for the peers)
    answers about the lock --> Claim

* `peer.py`: one connection: hello, admission or refusal, message to event, what is owed to it.
* `turn.py`: what arrived becomes one record, and is answered when the record is safe.
* `claim.py`: who leads, and until when that is sure.
* `fence.py`: what the store's answers mean: stored, refused, or forgotten.
* `convert.py`: wire messages to events, effects to wire messages.
"""
