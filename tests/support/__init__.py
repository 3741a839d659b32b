# SPDX-License-Identifier: BSD-3-Clause
"""What tests share: models, scenes, damage, builds."""
