"""Notebook 03: what an SPPO agent groups together on unseen levels, with evidence, skill videos, browser and page.

States are collected into one file (:mod:`.collect`, :mod:`.states`); :class:`.ClusterStudy` says what is true of them.
"""
