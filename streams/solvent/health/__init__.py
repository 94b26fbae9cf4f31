"""Health of a worker: is it alive, is it ready, what has it done; and the watchdog that ends it.

Read in this order: `observe` (what is seen of the lanes), `checks` (verdicts), `metrics`
(Prometheus), `watch` (the watchdog), `server` (HTTP), `monitor` (all of it together).
Everything runs in threads of its own and only reads, so the record path pays nothing.
"""
