"""What families of models differ in beyond their shape: where tables and head are, how pairs lie in a head, what
becomes of logits; and the check that all of it is right for one config."""
