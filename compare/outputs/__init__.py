"""The first question: do they agree?"""
