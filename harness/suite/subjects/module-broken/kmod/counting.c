// SPDX-License-Identifier: GPL-2.0
int broken(void)
{
	return no_such_thing;
}
