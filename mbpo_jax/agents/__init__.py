"""Learners: actor-critics and the targets their critics regress to."""
