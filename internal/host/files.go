package host

func (c *collection) readFiles() {}
