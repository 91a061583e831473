"""The report of the benchmarks: charts, sections, pages and the comparison of two reports."""
