"""How much of each adapter every way of combining keeps, over pairs and triples of the testbed."""
