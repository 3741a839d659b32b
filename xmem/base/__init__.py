# SPDX-License-Identifier: BSD-3-Clause
"""Words, requirements and findings: what every layer uses."""
