"""Reads a made-up table of measurements and keeps every row: the mistake that the demo is about."""

rows = []
while True:
    block = len(rows)
    rows.extend([block + row, (block + row) ** 0.5] for row in range(25_000))
    print(f"{len(rows):>7,} rows read", flush=True)
