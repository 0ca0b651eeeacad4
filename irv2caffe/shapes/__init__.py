"""What a net is made of: shapes, parameters, memory and pictures of any prototxt."""
