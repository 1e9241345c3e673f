"""Tiny settings of every method, one row each: what walks over all methods takes them from here."""

TABLE = {
    'standard': dict(),
    'alfa': dict(blocks='2', steps=2, step_size=0.05),
    'l_alfa': dict(blocks='1,2', steps=2, step_size=0.05),
    'noise': dict(blocks='2', std=0.1),
    'moex': dict(prob=1.0),
    'advprop': dict(steps=2, step_size='2/255'),
    'adv_train': dict(steps=2, step_size='4/255'),
    'sam': dict(rho=0.1),
    'isda': dict(strength=5.0, ramp=2),
}
