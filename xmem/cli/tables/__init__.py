# SPDX-License-Identifier: BSD-3-Clause
"""What the commands print: a table each, and lines that explain its figures."""
