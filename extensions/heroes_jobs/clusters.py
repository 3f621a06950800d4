"""placeholder while heroes_clusters is written"""
class Enrolled:
    def __init__(self, *a): pass
