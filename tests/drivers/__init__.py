"""Tests of the drivers: pure builders against golden files, one suite on fakes and real things."""
