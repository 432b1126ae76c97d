/* ranks/mpi_mpich.c - the ABI of MPICH and those who agreed on it: handles are numbers. */
#define HANDLE int
#define REQUEST i
#define IGNORE ((void *)1)
#include "ranks/mpi_shim.h"

bool mpi_use_mpich(struct mpi *m)
{
    world = 0x44000000;
    byte = 0x4c00010d;
    errors_return = 0x54000001;
    return !dlsym(m->library, "ompi_mpi_comm_world") && use(m);
}
