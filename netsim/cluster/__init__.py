"""A real network on one Linux machine: a namespace a rank, shaped links, a bridge as the switch."""
