"""Jobs of real ranks: how they are started, meet, run, and end; and who hears of it when one of them fails."""
