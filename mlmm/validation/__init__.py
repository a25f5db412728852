"""Checks: does a hybrid system do what it says, and how wrong are its forces near a boundary?"""
