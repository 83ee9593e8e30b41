/** The samplers as people know them, by the bundle's names. */

export const SAMPLER_NAMES: Readonly<Record<string, string>> = {
  ddim: "DDIM",
  ddpm: "DDPM",
  pndm: "PNDM",
  lms: "LMS",
  euler: "Euler",
  euler_a: "Euler a",
  heun: "Heun",
  dpm2: "DPM2",
  dpm2_a: "DPM2 a",
  dpmpp_2m: "DPM++ 2M",
  dpmpp_2m_sde: "DPM++ 2M SDE",
  dpmpp_2s: "DPM++ 2S",
  dpmpp_2s_sde: "DPM++ 2S SDE",
  dpmpp_sde: "DPM++ SDE",
  unipc: "UniPC",
  deis: "DEIS",
  lcm: "LCM",
  tcd: "TCD",
};
