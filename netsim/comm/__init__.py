"""The language of an algorithm's author: a worker's requests, payloads, schedules and collectives."""
