"""The executor kit: what every liquidation executor needs besides a strategy of its own.

Read in this order: `book` (which offers hold, pure), `strategy` (what is asked of you), `fills`,
`desk` (both together), `bridge` (the same for a program in any language), `tally` (counts),
`connection` and `service` (Kafka), `simulated` (the demo's strategy).
"""
